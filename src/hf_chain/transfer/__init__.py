"""Transfer: how far a vision tower goes on data sets that it was not trained on, measured by a suite of them."""
