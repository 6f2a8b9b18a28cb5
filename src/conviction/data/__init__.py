"""From bytes on disk to batches: source, pack, split, standardisation, stream."""
