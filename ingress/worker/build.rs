//! Bakes the checked configuration in.

fn main() {
    hookmill_bake::ingress();
}
