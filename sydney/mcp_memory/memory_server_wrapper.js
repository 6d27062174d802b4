// Starts dualmem-mcp on the folder that this file lies in: `node memory_server_wrapper.js`.
// Standard input, output and errors, exit code and signals are the server's own.
// No dependencies; written without require and import so that it runs as either kind of module.
"use strict";

const SERVER_MODULE = "dualmem_mcp.server.serve";
const FORWARDED = ["SIGINT", "SIGTERM", "SIGHUP"];
const onWindows = process.platform === "win32";

async function main() {
  const { spawn, spawnSync } = await import("node:child_process");
  const fs = await import("node:fs");
  const path = await import("node:path");
  const os = await import("node:os");

  const folder = path.dirname(fs.realpathSync(process.argv[1]));

  const isFile = (file) => fs.statSync(file, { throwIfNoEntry: false })?.isFile() ?? false;

  // -P: a server is often started in a project's folder, whose files must not stand in for modules.
  const throughPython = (python) => [python, ["-P", "-m", SERVER_MODULE]];

  function onPath(name) {
    const endings = onWindows ? (process.env.PATHEXT || ".EXE").split(";") : [""];
    for (const place of (process.env.PATH || "").split(path.delimiter)) {
      // An empty or relative entry would mean the folder that the client happens to stand in.
      if (!path.isAbsolute(place)) continue;
      for (const ending of endings) {
        const file = path.join(place, name + ending);
        if (isFile(file)) return file;
      }
    }
    return null;
  }

  function findServer() {
    if (process.env.DUALMEM_PYTHON) return throughPython(process.env.DUALMEM_PYTHON);

    const checkout = path.resolve(folder, "..", "..");
    const programs = path.join(checkout, ".venv", onWindows ? "Scripts" : "bin");
    const ending = onWindows ? ".exe" : "";
    if (isFile(path.join(programs, "dualmem-mcp" + ending))) {
      return throughPython(path.join(programs, "python" + ending));
    }

    const installed = onPath("dualmem-mcp");
    if (installed) return [installed, []];

    for (const name of ["python3", "python"]) {
      const python = onPath(name);
      if (python && spawnSync(python, ["-P", "-c", "import dualmem_mcp"], { stdio: "ignore" }).status === 0) {
        return throughPython(python);
      }
    }
    return null;
  }

  function fail(reason) {
    process.stderr.write(
      `error: ${reason}\n` +
        "hint: put dualmem-mcp on PATH, run scripts/run once in its checkout, or name a Python that has it in " +
        "DUALMEM_PYTHON.\n",
    );
    process.exitCode = 127;
  }

  const server = findServer();
  if (!server) return fail("dualmem-mcp was not found on this machine");

  const [program, args] = server;
  const child = spawn(program, [...args, ...process.argv.slice(2)], {
    stdio: "inherit",
    env: { ...process.env, DUALMEM_HOME: folder },
    // A session of its own: the terminal's Ctrl-C then comes once, from here, and not twice.
    detached: !onWindows,
    windowsHide: true,
  });

  const forward = (signal) => {
    // On Windows the console tells every process of Ctrl-C, and kill() would end the server at once.
    if (!(onWindows && signal === "SIGINT")) child.kill(signal);
  };
  for (const signal of FORWARDED) process.on(signal, forward);

  child.on("error", (error) => fail(`${program} could not be started (${error.code || error.message})`));
  child.on("exit", (code, signal) => {
    if (signal === null) {
      process.exitCode = code;
      return;
    }
    for (const name of FORWARDED) process.removeListener(name, forward);
    process.exitCode = 128 + (os.constants.signals[signal] || 0);
    process.kill(process.pid, signal);
  });
}

main();
