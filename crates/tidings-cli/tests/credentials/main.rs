//! Who may do what at the real binary: hosts, clients, issuers, tickets, and applications that decide.

mod access;
mod authorize;
mod bad_applications;
mod client_addresses;
mod issuers;
mod subjects;
mod tickets;
