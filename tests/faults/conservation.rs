//! Two replicas, senders that resend as Vector does, and faults drawn from a seed: nothing is lost, nothing doubled.
