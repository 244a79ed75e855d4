"""How a model's own code initialises its parameters, recorded while it is built without memory for them."""
