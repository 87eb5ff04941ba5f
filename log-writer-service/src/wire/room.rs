//! Room: what a body's way through this module takes of memory, asked for before it is taken.

/// Asked with the bytes that a step will hold at once, all its own buffers together; false: they are not free.
///
/// What is asked for later goes over what was asked for before; a step that was refused ends at once.
pub type Room<'r> = dyn FnMut(usize) -> bool + 'r;

/// Makes room for more in a buffer: exactly so many, asked for with the old buffer, from which they are copied.
pub(super) fn reserve<T>(list: &mut Vec<T>, more: usize, room: &mut Room<'_>) -> bool {
    let capacity = list.len().saturating_add(more);
    let items = list.capacity().saturating_add(capacity);
    let granted = room(items.saturating_mul(size_of::<T>()));
    if granted {
        list.reserve_exact(more);
    }
    granted
}
