//! Room of the control plane.
