"""What every role stands on; knows no role and no feature."""
