// The statements of a file of SQL. Only the body of a trigger contains semicolons.
export const statements = (sql) =>
  sql.replace(/--.*$/gm, "").match(/CREATE TRIGGER[^]*?\bEND(?=;)|[^;\s][^;]*/g) ?? [];
