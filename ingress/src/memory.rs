//! The budget for bodies in memory.
//!
//! Half of it is divided among the sources, and the other half is for all. So requests to one source cannot use up the
//! memory of the others.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The free memory.
#[derive(Debug)]
pub(crate) struct Memory(Mutex<Free>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Free {
    common: usize,
    /// By the index of the source.
    own: Vec<usize>,
}

impl Memory {
    pub(crate) fn new(bytes: usize, sources: usize) -> Self {
        let own = bytes / 2 / sources.max(1);
        Self(Mutex::new(Free { common: bytes - own * sources, own: vec![own; sources] }))
    }

    /// Starts a reservation for a source, of 0 bytes.
    pub(crate) const fn reserve(&self, source: usize) -> Reserved<'_> {
        Reserved { memory: self, source, own: 0, common: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reservation, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reserved<'m> {
    memory: &'m Memory,
    source: usize,
    own: usize,
    common: usize,
}

impl Reserved<'_> {
    /// Reserves more. Returns false if there is not enough memory.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let mut free = self.memory.lock();
        let own = bytes.min(free.own[self.source]);
        let common = bytes - own;
        if common > free.common {
            return false;
        }
        free.own[self.source] -= own;
        free.common -= common;
        self.own += own;
        self.common += common;
        true
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut free = self.memory.lock();
        free.own[self.source] += self.own;
        free.common += self.common;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_cannot_use_up_the_memory_of_the_others() {
        let memory = Memory::new(100, 2);
        let before = memory.lock().clone();
        assert_eq!(before, Free { common: 50, own: vec![25, 25] });
        let mut greedy: Vec<_> = (0..20).map(|_| memory.reserve(0)).collect();
        let taken = greedy.iter_mut().filter_map(|body| body.grow(10).then_some(())).count();
        assert_eq!(taken, 7);
        let mut other = memory.reserve(1);
        assert!(other.grow(25) && other.grow(5) && !other.grow(1));
        drop(other);
        // What a body has reserved is free again after it.
        greedy.remove(0);
        assert!(greedy.pop().is_some_and(|mut body| body.grow(10)));
        drop(greedy);
        assert_eq!(*memory.lock(), before);
    }
}
