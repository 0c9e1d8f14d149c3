// The admin API against its own OpenAPI document, by schemathesis (https://schemathesis.readthedocs.io): whatever a request
// made from the document is, the answer is one that the document names.
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { running } from "./support.mjs";
import { conforms, python } from "./schemathesis.mjs";

test("the admin API of the binary is as its document says", { skip: python ? false : "there is no Python" }, async () => {
  const { address, binary, data } = running();
  const create = ["token", "create", "schemathesis", "--role", "operate", "--data", data];
  const token = execFileSync(binary, create, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  await conforms(address, token);
});
