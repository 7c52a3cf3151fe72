//! Consultations: what happened, for ever.
