//! Any bytes with which a connection may begin: nothing panics, and a reader that follows the counts
//! of the parser reads a bounded header, finds what the whole input says, and takes no byte behind
//! it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidings_server::{PROXY_HEADER_BYTES_MAX, ProxyHeader};

fuzz_target!(|bytes: &[u8]| {
    let whole = ProxyHeader::parse(bytes);
    let mut read = 0;
    loop {
        match ProxyHeader::parse(&bytes[..read]) {
            Ok(ProxyHeader::Incomplete(more)) => {
                assert!(more > 0 && read + more <= PROXY_HEADER_BYTES_MAX);
                if read + more > bytes.len() {
                    // The rest of the header has not arrived, or is known to be wrong.
                    assert!(!matches!(whole, Ok(ProxyHeader::Complete { .. })));
                    return;
                }
                read += more;
            }
            Ok(ProxyHeader::Complete { length, from }) => {
                assert_eq!(length, read);
                assert_eq!(whole, Ok(ProxyHeader::Complete { length, from }));
                return;
            }
            Err(_) => {
                assert!(whole.is_err());
                return;
            }
        }
    }
});
