//! Why a datagram is refused. Nothing has changed then but a counter.

macro_rules! refused {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal, $text:literal;)+) => {
        /// See the module's text.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
        pub enum Refused { $($(#[doc = $doc])+ #[error($text)] $name,)+ }

        impl Refused {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Refused] = &[$(Refused::$name),+];

            /// The word by which it is counted.
            pub const fn label(self) -> &'static str {
                match self { $(Refused::$name => $label,)+ }
            }
        }
    };
}

refused! {
    /// Too short or too long for what it says it is.
    Length = "length", "a datagram of a length that none of ours has";
    /// It does not begin as ours do.
    Foreign = "foreign", "a datagram of something else";
    /// A version of the protocol that we do not speak.
    Version = "version", "a datagram of another version of the protocol";
    /// It was made by a node of our own number: our own datagram came back, or both nodes were given the same number.
    Node = "node", "a datagram of a node with our own number";
    /// Made with another key than the one that both nodes should have.
    Key = "key", "a datagram made with another key";
    /// A greeting that was not made with our key.
    Forged = "forged", "a greeting that was not made with our key";
    /// A greeting that answers none of ours: an old one that somebody repeats, or that was long on its way.
    Stale = "stale", "a greeting that answers none of ours";
    /// It belongs to no session, or to an old one.
    Session = "session", "a datagram of no session that we know";
    /// It, or a later one, has been received before.
    Late = "late", "a datagram that was received before, or came after a later one";
    /// Its seal does not hold.
    Seal = "seal", "a datagram whose seal does not hold";
    /// Whole and by our peer, but not understood.
    Malformed = "malformed", "a datagram of our peer's that is not understood";
}
