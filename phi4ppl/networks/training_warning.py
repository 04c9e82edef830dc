"""The warning that a training ends in when its result is not to be trusted."""

try:
    from sklearn.exceptions import ConvergenceWarning
except ImportError:  # scikit-learn is optional
    ConvergenceWarning = UserWarning

__all__ = ["TrainingWarning"]


class TrainingWarning(ConvergenceWarning):
    """A training has diverged, or its chains do not sample the machine; the message says what to change.

    A subclass of `sklearn.exceptions.ConvergenceWarning` where scikit-learn is installed, and of `UserWarning` always.

    Parameters
    ----------
    problem : str
        What is wrong, and what to change.
    returned : str
        Which state is returned.
    """

    def __init__(self, problem: str, returned: str = ""):
        super().__init__(f"{problem} {returned}".rstrip())
        self.problem = problem
