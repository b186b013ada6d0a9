//! A subscriber, in the order in which it comes to be: what it requests ([`subscribe`],
//! [`resume`]), where it [starts](start), also [one topic after the other](stages), what it receives next ([`reader`]), what is sent first
//! ([`backlog`]), when it [ends](end), and the pulled [`subscription`], or typed by a [`listener`]. The other driver of a
//! reader is the [shard](crate::shard), which gets the [`parts`] of a subscription.

pub(crate) mod backlog;
pub(crate) mod end;
pub(crate) mod listener;
pub(crate) mod parts;
pub(crate) mod reader;
pub(crate) mod resume;
pub(crate) mod stages;
pub(crate) mod start;
pub(crate) mod subscribe;
pub(crate) mod subscription;
