"""What was done? The one room where models, data and engine meet."""
