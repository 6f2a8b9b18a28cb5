"""Training: loss, optimiser, schedule, stopping, checkpoint, and the loop over epochs."""
