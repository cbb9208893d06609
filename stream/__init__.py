"""What arrived, and when a window is complete."""
