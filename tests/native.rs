//! The contract, against the native binary.

use hookmill_tests::native as platform;

mod contract;
