// The admin API against its own OpenAPI document, by schemathesis (https://schemathesis.readthedocs.io): for any request
// that is generated from the document, the response is one that the document lists.
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { running } from "./support.mjs";
import { conforms, python } from "./schemathesis.mjs";

test("the admin API of the binary matches its document", { skip: python ? false : "Python is missing" }, async () => {
  const { address, binary, data } = running();
  const create = ["token", "create", "schemathesis", "--role", "operate", "--data", data];
  const token = execFileSync(binary, create, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  await conforms(address, token);
});
