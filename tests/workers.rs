//! The contract, against the three Workers in workerd.

use hookmill_tests::workers as platform;

mod contract;
