"""What a window should predict: responses, controls that lost their match with the sound, or another model's states."""
