//! Room: what a body's way through this module takes of memory, asked for before it is taken.

/// Asked with the bytes that a step will hold at once, all its own buffers together; false: they are not free.
///
/// What is asked for later goes over what was asked for before; a step that was refused ends at once.
pub type Room<'r> = dyn FnMut(usize) -> bool + 'r;

/// Makes room for more in a buffer: exactly so many, asked for with the old buffer, from which they are copied.
pub(super) fn reserve(buffer: &mut Vec<u8>, more: usize, room: &mut Room<'_>) -> bool {
    let capacity = buffer.len().saturating_add(more);
    let granted = room(buffer.capacity().saturating_add(capacity));
    if granted {
        buffer.reserve_exact(more);
    }
    granted
}
