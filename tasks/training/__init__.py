"""The hand-over from data to training and back."""
