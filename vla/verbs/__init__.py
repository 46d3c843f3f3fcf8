"""One file a CLI verb. The only place where sibling packages meet; they are imported inside the functions."""
