//! A lock, a compressed day, a frozen replica or a twin in flight holds up what needs it, and nothing else.
