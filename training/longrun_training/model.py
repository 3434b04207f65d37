"""The model: an estimator of scikit-learn by its name, how it is fitted, and how it is stored without code that could run when it is loaded."""

import copy
import difflib
import inspect
import io
import re
import shutil
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import ClassifierMixin, RegressorMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from longrun_training.config import Configuration, Parameter
from longrun_training.errors import ProblemError
from longrun_training.scores import Probabilities, Task

if TYPE_CHECKING:
    from longrun_training.data import Dataset

# Where scikit-learn keeps its estimators; looked through in this order, because each of them takes time to import.
MODULES = (
    "ensemble", "linear_model", "tree", "svm", "neighbors", "naive_bayes", "neural_network", "dummy", "kernel_ridge", "discriminant_analysis",
    "gaussian_process", "cross_decomposition", "isotonic", "calibration", "semi_supervised", "multiclass", "multioutput", "model_selection",
)  # fmt: skip
# Fitted by threads, tree by tree; the others' `n_jobs` starts processes, is deprecated, or changes nothing.
FORESTS = frozenset({"RandomForestRegressor", "RandomForestClassifier", "ExtraTreesRegressor", "ExtraTreesClassifier"})
# skops loads no type that it was not told of. A model that we fitted ourselves holds types of these packages only.
TRUSTED_PACKAGES = frozenset({"numpy", "scipy", "sklearn"})
# What a server of this model has to install.
SERVING_PACKAGES = ("mlflow", "numpy", "pandas", "scikit-learn", "skops")
# The example that is stored with a model, for its users to copy.
EXAMPLE_ROWS = 5
MODEL_FILE = "model.skops"
BAD_PARAMETER = re.compile(r"The '(\w+)' parameter of \w+ (must be .*)", re.DOTALL)
SHOWN_CHARACTERS = 200

# scikit-learn has no types; what is fitted here predicts, and may give probabilities.
Estimator = Any


def task(configuration: Configuration) -> Task:
    """Return what the configured estimator does.

    Raises:
        ProblemError: scikit-learn has no such classifier or regressor.
    """
    return "classification" if issubclass(_kind(configuration), ClassifierMixin) else "regression"


def _kind(configuration: Configuration) -> type[Any]:
    name = configuration.estimator.name
    for module in MODULES:
        found = getattr(import_module(f"sklearn.{module}"), name, None)
        if inspect.isclass(found) and issubclass(found, (ClassifierMixin, RegressorMixin)):
            return found
    from sklearn.utils import all_estimators  # noqa: PLC0415 - imports all of scikit-learn

    known = [found for found, _ in all_estimators(type_filter=["classifier", "regressor"])]
    close = difflib.get_close_matches(name, known, 3, 0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else "take for example RandomForestRegressor, HistGradientBoostingClassifier or LogisticRegression"
    raise configuration.problem(("estimator", "name"), f"is {name!r}, which is no classifier or regressor of scikit-learn: {hint}")


def build(configuration: Configuration) -> Estimator:
    """Return the configured estimator, not fitted, behind a StandardScaler where one is wanted; the seed is its `random_state`.

    Raises:
        ProblemError: There is no such estimator, it has no such parameter, or a parameter has a value that it does not take.
    """
    kind, given = _kind(configuration), {name: _python(value) for name, value in configuration.estimator.parameters.items()}
    known = inspect.signature(kind).parameters
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known)}"
            raise configuration.problem(("estimator", "parameters", name), f"is not a parameter of {kind.__name__}: {hint}")
    try:
        estimator = kind(**given)
    except TypeError as error:
        fault = f"is {kind.__name__}, which is made of other estimators and can't be written in longrun.toml: take another"
        raise configuration.problem(("estimator", "name"), fault) from error
    if "random_state" in known and "random_state" not in given:
        estimator.set_params(random_state=configuration.evaluation.seed)
    _check_values(configuration, estimator)
    return Pipeline([("scaler", StandardScaler()), ("estimator", estimator)]) if configuration.estimator.scale else estimator


def _python(value: Parameter) -> Parameter:
    # TOML has no word for it.
    return None if value == "None" else value


def _check_values(configuration: Configuration, estimator: Estimator) -> None:
    """Let scikit-learn check the parameters before anything else is done: it does so first in a fit, even in one of no rows."""
    try:
        clone(estimator).fit(np.empty((0, 1)), np.empty(0))
    except (ValueError, TypeError) as error:
        found = BAD_PARAMETER.match(str(error))
        if found:
            said = " ".join(found[2].split())
            raise configuration.problem(("estimator", "parameters", found[1]), f"is not right for {configuration.estimator.name}: it {said}") from error
    except Exception:  # noqa: BLE001, S110 - what an estimator makes of no rows is not asked here
        pass


def fit(configuration: Configuration, features: pd.DataFrame, answers: "pd.Series[Any]", *, jobs: int = -1) -> Estimator:
    """Return the estimator fitted on rows x features and one answer a row; the same arguments give the same model.

    Args:
        configuration: Estimator, parameters and seed.
        features: Rows x features.
        answers: One number or class a row.
        jobs: Threads of a forest, -1 for one a processor; they change the time, not the model.

    Raises:
        ProblemError: The estimator can't be made, or refuses the rows.
    """
    estimator = build(configuration)
    # Trees fit in any order are the same trees, but predictions summed in any order differ in the last digit.
    threads = configuration.estimator.name in FORESTS and "n_jobs" not in configuration.estimator.parameters
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    if threads:
        last.set_params(n_jobs=jobs)
    try:
        estimator.fit(features, answers)
    except (ValueError, TypeError) as error:
        said = _short(str(error))
        raise configuration.problem(("estimator", "name"), f"is {configuration.estimator.name}, which can't be fitted to these rows: {said}") from error
    if threads:
        last.set_params(n_jobs=None)
    return estimator


def predict(estimator: Estimator, features: pd.DataFrame) -> npt.NDArray[Any]:
    """Return one prediction a row: in the target's unit, or the name of a class."""
    return cast("npt.NDArray[Any]", np.asarray(estimator.predict(features)).reshape(len(features)))


def probabilities(estimator: Estimator, features: pd.DataFrame, classes: tuple[str, ...]) -> Probabilities | None:
    """Return what a classifier gives each of the classes; None where it is a regressor, or can't say.

    A class that it was not fitted with gets 0.
    """
    if not classes or not hasattr(estimator, "predict_proba"):
        return None
    given, known = np.asarray(estimator.predict_proba(features), dtype=np.float64), [str(name) for name in estimator.classes_]
    values = np.zeros((len(features), len(classes)))
    for column, name in enumerate(classes):
        if name in known:
            values[:, column] = given[:, known.index(name)]
    return Probabilities(classes, values)


def parameters(configuration: Configuration, estimator: Estimator) -> dict[str, object]:
    """Return what the estimator was made with: every parameter that is configured or not scikit-learn's default; the seed is not among them."""
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    defaults = {name: found.default for name, found in inspect.signature(type(last)).parameters.items()}
    configured = configuration.estimator.parameters
    return {
        name: value
        for name, value in sorted(last.get_params(deep=False).items())
        if name in configured or (name != "random_state" and repr(value) != repr(defaults.get(name)))
    }


def save(estimator: Estimator, dataset: "Dataset", folder: Path) -> int:
    """Write a model as MLflow reads it, with signature, example and requirements, into a folder that is not there yet.

    Returns:
        The size of the model itself, in bytes.

    Raises:
        ProblemError: The model holds something that skops can't store, or that it should not load.
    """
    import mlflow.sklearn  # noqa: PLC0415 - seconds that fitting a model does not need
    from mlflow.exceptions import MlflowException  # noqa: PLC0415
    from mlflow.models import infer_signature  # noqa: PLC0415

    example = dataset.features.head(EXAMPLE_ROWS)
    signature = infer_signature(dataset.features, predict(estimator, example))

    def write(types: list[str]) -> None:
        mlflow.sklearn.save_model(
            estimator,
            str(folder),
            signature=signature,
            input_example=example,
            pip_requirements=requirements(),
            serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_SKOPS,
            skops_trusted_types=types,
        )

    try:
        # Asking for all the types costs as much as storing the model; a hundred trees have those of the first.
        write(trusted_types(_first_of_many(estimator)))
    except MlflowException:
        shutil.rmtree(folder, ignore_errors=True)
        write(trusted_types(estimator))
    return (folder / MODEL_FILE).stat().st_size


def _first_of_many(estimator: Estimator) -> Estimator:
    """Return a copy of a fitted model that has only the first of each list of parts; it is good for nothing but looking at its types."""
    if isinstance(estimator, Pipeline):
        return [_first_of_many(part) for _, part in estimator.steps]
    small = copy.copy(estimator)
    for name, value in vars(estimator).items():
        if isinstance(value, list) or (isinstance(value, np.ndarray) and value.dtype == object):
            vars(small)[name] = value[:1]
    return small


def trusted_types(estimator: Estimator) -> list[str]:
    """Return the types in a fitted model that skops does not load unasked; all of them are of the packages that models are made of.

    Raises:
        ProblemError: Others are in it, or skops can't store it.
    """
    import skops.io  # type: ignore[import-untyped]  # noqa: PLC0415

    buffer, name = io.BytesIO(), type(estimator).__name__
    try:
        skops.io.dump(estimator, buffer)
    except Exception as error:
        message = f"{name} can't be stored without code that would run when it is loaded ({_short(str(error))}): take another estimator"
        raise ProblemError(message) from error
    found: list[str] = sorted(skops.io.get_untrusted_types(data=buffer.getvalue()))
    strange = [kind for kind in found if kind.partition(".")[0] not in TRUSTED_PACKAGES]
    if strange:
        message = f"{name} holds {strange[0]}, which is no type of {', '.join(sorted(TRUSTED_PACKAGES))}: take another estimator"
        raise ProblemError(message)
    return found


def requirements() -> list[str]:
    """Return the pinned packages that serve the model, as pip reads them."""
    return [f"{package}=={version(package)}" for package in SERVING_PACKAGES]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else line[:SHOWN_CHARACTERS] + "…"
