"""What TFLite holds, and the reading of the file that was written."""
