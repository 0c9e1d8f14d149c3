// Remembers the memory of a Worker's Wasm. Imported before the Worker, which makes its instance when it is loaded.
export const wasm = { memory: undefined };

const { Instance } = WebAssembly;
WebAssembly.Instance = class extends Instance {
  constructor(...of) {
    super(...of);
    wasm.memory = this.exports.memory;
  }
};
