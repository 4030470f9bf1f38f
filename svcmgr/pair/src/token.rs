//! The word by which an administrator makes two nodes a pair.
