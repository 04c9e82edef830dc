"""Rendering: tables and pictures become self-contained HTML pages.

Arrays and texts come in; pages go out. It knows neither models nor runs. Read `html` first.
"""
