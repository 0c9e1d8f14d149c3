//! Bakes the checked configuration in.

fn main() {
    hookmill_loader::bake::consumers();
}
