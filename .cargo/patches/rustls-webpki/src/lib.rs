//! rumqttc 0.25 names `webpki::Error` of the 0.102 line in one error variant and calls nothing of it;
//! this hands it the maintained line's type, so that the vulnerable version is not in the tree.
pub use webpki::Error;
