//! The built-in tasks against known truth, hostile input and their own limits.

mod hostile;
mod images;
mod params;
mod speech;
mod support;
mod truth;
mod whole;
