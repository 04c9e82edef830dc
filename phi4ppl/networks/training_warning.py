"""The warning that training issues when its result should not be trusted."""

from ..errors import Phi4pplWarning

try:
    from sklearn.exceptions import ConvergenceWarning
except ImportError:  # scikit-learn is optional
    ConvergenceWarning = UserWarning

__all__ = ["TrainingWarning"]


class TrainingWarning(Phi4pplWarning, ConvergenceWarning):
    """Training has diverged, or its chains do not sample the machine; the message says what to change.

    A subclass of `sklearn.exceptions.ConvergenceWarning` where scikit-learn is installed, and of `UserWarning` always. Its code
    is ``training.not_converged``.

    Parameters
    ----------
    problem : str
        What is wrong, and what to change.
    returned : str
        Which state is returned.
    """

    def __init__(self, problem: str, returned: str = ""):
        super().__init__("training.not_converged", f"{problem} {returned}".rstrip())
        self.problem = problem
