"""How a model's own code initialises its parameters, recorded while it is built without memory for them."""

from .law import Law
from .record import Recording, draw_jointly, record

__all__ = ["Law", "Recording", "draw_jointly", "record"]
