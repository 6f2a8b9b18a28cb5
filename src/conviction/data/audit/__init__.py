"""Pictures examined before anything is trained on them: copies, and what is odd about single ones."""
