"""The explainer of each kind of model."""

from service.softmax.calibrated_explainer import CalibratedExplainer
from service.softmax.calibration import CalibratedModel
from service.softmax.classifier import Classifier
from service.softmax.explainer import Explainer
from service.softmax.linear_explainer import LinearExplainer
from service.softmax.linear_model import LinearModel
from service.softmax.mixture_explainer import MixtureExplainer
from service.softmax.mixture_model import MixtureModel
from service.softmax.network_explainer import NetworkExplainer
from service.softmax.network_model import NetworkModel


def create_explainer(model: Classifier) -> Explainer:
    """Return the explainer of a linear model, a network, a mixture, or one of these with a calibration."""
    if isinstance(model, CalibratedModel):
        return CalibratedExplainer(model, create_explainer(model.inner))
    if isinstance(model, NetworkModel):
        return NetworkExplainer(model)
    if isinstance(model, MixtureModel):
        return MixtureExplainer(model, None if model.offset is None else create_explainer(model.offset))
    assert isinstance(model, LinearModel)  # noqa: S101  # there is no other class
    return LinearExplainer(model)
