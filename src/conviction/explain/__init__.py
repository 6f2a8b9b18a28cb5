"""What a trained network has learned, and where it looks."""
