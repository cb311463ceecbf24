'use strict';
// A small reports API with nothing but Node: POST and GET reports, kept in memory.
// It knows nothing of Plimsoll: it reads PORT, answers /health and finishes its requests on SIGTERM.

const fs = require('node:fs');
const http = require('node:http');
const faults = require('./faults');
const { UsageError, count } = require('./units');

const BODY_BYTES_MAX = 64 * 1024;
const REPORTS_MAX = 10_000;
const LIST_DEFAULT = 20;
const LIST_MAX = 200;
const DRAIN_MS_MAX = 60_000;
// Where each report is also written as a line: the memory goes with the process.
const REPORTS_FILE = process.env.REPORTS_FILE;

const reports = new Map();
let nextId = 1;

class HttpError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function readJson(request) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > BODY_BYTES_MAX) throw new HttpError(413, `a report has at most ${BODY_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString());
  } catch {
    throw new HttpError(400, 'the body is not JSON');
  }
}

async function createReport(request) {
  const draft = await readJson(request);
  if (typeof draft?.title !== 'string' || typeof draft?.body !== 'string') {
    throw new HttpError(422, 'a report needs a title and a body, both text');
  }
  const key = request.headers['idempotency-key'] ?? request.headers['x-request-id'] ?? null;
  const report = { id: nextId, title: draft.title, body: draft.body, key };
  nextId += 1;
  reports.set(report.id, report);
  if (REPORTS_FILE) fs.appendFileSync(REPORTS_FILE, `${JSON.stringify(report)}\n`);
  // Bounded: the store must not be the leak.
  if (reports.size > REPORTS_MAX) reports.delete(reports.keys().next().value);
  return [201, { id: report.id }];
}

function listReports(query) {
  const limit = Math.min(count(query.get('limit') ?? String(LIST_DEFAULT)), LIST_MAX);
  return [200, { reports: limit === 0 ? [] : [...reports.values()].slice(-limit).reverse() }];
}

function getReport(id) {
  const report = reports.get(Number(id));
  if (report === undefined) throw new HttpError(404, `no report ${id}`);
  return [200, report];
}

function startFault(path, query) {
  const started = faults[path](query);
  console.log(`fault: ${path} ${JSON.stringify(started)}`);
  return [202, started];
}

async function route(request) {
  const url = new URL(request.url, 'http://localhost');
  const call = `${request.method} ${url.pathname}`;
  if (call === 'GET /health') return [200, { status: 'ok' }];
  if (call === 'POST /reports') return createReport(request);
  if (call === 'GET /reports') return listReports(url.searchParams);
  const one = /^GET \/reports\/(\d+)$/.exec(call);
  if (one) return getReport(one[1]);
  if (Object.hasOwn(faults, url.pathname)) {
    if (request.method !== 'POST') throw new HttpError(405, 'a switch is a POST');
    return startFault(url.pathname, url.searchParams);
  }
  throw new HttpError(404, `nothing at ${call}`);
}

function failure(error) {
  if (error instanceof HttpError) return [error.status, { error: error.message }];
  if (error instanceof UsageError) return [400, { error: error.message }];
  console.error(error);
  return [500, { error: 'internal error' }];
}

async function serve(request, response) {
  const [status, body] = await route(request).catch(failure);
  const text = JSON.stringify(body);
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
  if (status === 405) headers.allow = 'POST';
  // Once stopping, or with part of a body unread, the connection cannot carry another request.
  if (stopping || !request.complete) headers.connection = 'close';
  response.writeHead(status, headers).end(text);
}

// Connections that never carried a request: Node counts them as active, and would wait for them.
const fresh = new Set();
const server = http.createServer((request, response) => {
  fresh.delete(request.socket);
  serve(request, response).catch((error) => response.destroy(error));
});
let stopping = false;

function stop(signal) {
  if (stopping) return;
  stopping = true;
  console.log(`${signal}: finishing requests in flight`);
  server.close(() => {
    console.log('stopped');
    process.exit(0);
  });
  server.closeIdleConnections();
  for (const socket of fresh) {
    if (socket.bytesRead === 0) socket.destroy();
  }
  setTimeout(() => server.closeAllConnections(), DRAIN_MS_MAX).unref();
}

server.on('connection', (socket) => {
  fresh.add(socket);
  socket.once('close', () => fresh.delete(socket));
});

process.on('SIGTERM', stop);
process.on('SIGINT', stop);
server.on('error', (error) => {
  console.error(`cannot listen: ${error.message}`);
  process.exit(1);
});
server.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
  console.log(`listening on 127.0.0.1:${server.address().port}`);
});
