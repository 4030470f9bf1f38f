//! What both nodes know and nobody else does.
