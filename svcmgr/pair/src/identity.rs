//! Who a node is: an Ed25519 key pair that it keeps, and the public half by which the other node knows it.
