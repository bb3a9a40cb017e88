//! Bad histories, and that each is complained of.
