//! What goes between two nodes that know each other: frames, over TLS 1.3.
