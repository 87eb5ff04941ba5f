//! The process dies at a failpoint, is started again, and its sender sends again what was not acknowledged.
