"""Looking at a trained network with other eyes than the training's."""
