//! The port that tells a stranger nothing.
