"""Models of other libraries, and of this one, as ``apply, params``; each library is imported when one of its models is read."""
