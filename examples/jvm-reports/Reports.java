// A small reports API with nothing but the JDK: POST and GET reports, kept in memory.
// Run it by `java Reports.java`.
// It knows nothing of Plimsoll: it reads PORT, answers /health and finishes its requests on SIGTERM.

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.FileInputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

public final class Reports {
    static final int BODY_BYTES_MAX = 64 * 1024;
    static final int REPORTS_MAX = 10_000;
    static final int LIST_DEFAULT = 20;
    static final int LIST_MAX = 200;
    static final int WORKERS = 16;
    static final int DRAIN_SECONDS_MAX = 60;
    // What was accepted just before the stop is still taken for this long.
    static final int LAST_CALL_MS = 20;

    /** What is answered. */
    static final class Answer {
        final int status;
        final String json;

        Answer(int status, String json) {
            this.status = status;
            this.json = json;
        }
    }

    static final class Refused extends RuntimeException {
        final int status;

        Refused(int status, String message) {
            super(message);
            this.status = status;
        }
    }

    public static void main(String[] args) throws IOException {
        String port = System.getenv().getOrDefault("PORT", "3000");
        InetAddress loopback = InetAddress.getLoopbackAddress();
        InetSocketAddress address = new InetSocketAddress(loopback, Integer.parseInt(port));
        HttpServer server = HttpServer.create(address, 128);
        Service service = new Service();
        server.createContext("/", service::serve);
        server.setExecutor(Executors.newFixedThreadPool(WORKERS));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> service.drain(server)));
        server.start();
        System.out.println("listening on 127.0.0.1:" + server.getAddress().getPort());
    }

    /** A thread that does not keep the process from ending. */
    static Thread daemon(Runnable run) {
        Thread thread = new Thread(run);
        thread.setDaemon(true);
        return thread;
    }

    /** The API: which call does what. */
    static final class Service {
        private static final Pattern ONE = Pattern.compile("GET /reports/(\\d{1,15})");

        private final Store store = new Store();
        private final Faults faults = new Faults(store);
        private final AtomicInteger inFlight = new AtomicInteger();
        private volatile boolean stopping;

        void serve(HttpExchange exchange) throws IOException {
            inFlight.incrementAndGet();
            try {
                Answer answer = answer(exchange);
                byte[] text = answer.json.getBytes(StandardCharsets.UTF_8);
                exchange.getResponseHeaders().set("Content-Type", "application/json");
                if (stopping) exchange.getResponseHeaders().set("Connection", "close");
                exchange.sendResponseHeaders(answer.status, text.length);
                exchange.getResponseBody().write(text);
            } finally {
                exchange.close(); // sends what is left; not AutoCloseable before Java 14
                inFlight.decrementAndGet();
            }
        }

        private Answer answer(HttpExchange exchange) throws IOException {
            try {
                return route(exchange);
            } catch (Refused refused) {
                return new Answer(refused.status, Json.object("error", refused.getMessage()));
            }
        }

        private Answer route(HttpExchange exchange) throws IOException {
            String path = exchange.getRequestURI().getPath();
            String call = exchange.getRequestMethod() + " " + path;
            Map<String, String> query = Units.query(exchange.getRequestURI().getRawQuery());
            if (call.equals("GET /health")) return health();
            if (call.equals("POST /reports")) return create(exchange);
            if (call.equals("GET /reports")) {
                long limit = Units.count(query.getOrDefault("limit", String.valueOf(LIST_DEFAULT)));
                String reports = String.join(",", store.newest(Math.min(limit, LIST_MAX)));
                return new Answer(200, "{\"reports\":[" + reports + "]}");
            }
            Matcher one = ONE.matcher(call);
            if (one.matches()) return new Answer(200, store.get(Long.parseLong(one.group(1))));
            if (Faults.SWITCHES.contains(path)) return startFault(exchange.getRequestMethod(), path, query);
            throw new Refused(404, "nothing at " + call);
        }

        private Answer health() {
            store.size();
            return new Answer(200, Json.object("status", "ok"));
        }

        private Answer create(HttpExchange exchange) throws IOException {
            byte[] body = exchange.getRequestBody().readNBytes(BODY_BYTES_MAX + 1);
            if (body.length > BODY_BYTES_MAX) {
                throw new Refused(413, "a report has at most " + BODY_BYTES_MAX + " bytes");
            }
            Map<String, String> draft = Json.parse(new String(body, StandardCharsets.UTF_8));
            if (draft.get("title") == null || draft.get("body") == null) {
                throw new Refused(422, "a report needs a title and a body, both text");
            }
            String key = exchange.getRequestHeaders().getFirst("Idempotency-Key");
            if (key == null) key = exchange.getRequestHeaders().getFirst("X-Request-Id");
            return new Answer(201, "{\"id\":" + store.add(draft.get("title"), draft.get("body"), key) + "}");
        }

        private Answer startFault(String method, String path, Map<String, String> query) throws IOException {
            if (!method.equals("POST")) throw new Refused(405, "a switch is a POST");
            faults.start(path, query);
            System.out.println("fault: " + path + " " + query);
            return new Answer(202, Json.object("started", path));
        }

        /** In the shutdown hook, on SIGTERM: no further connections, then the requests in flight. */
        void drain(HttpServer server) {
            System.out.println("stopping: finishing requests in flight");
            stopping = true;
            // Closes the port at once and then waits; on some versions for all of its delay, even with nothing in
            // flight. So it waits in a thread of its own and the end is decided here.
            daemon(() -> server.stop(DRAIN_SECONDS_MAX)).start();
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(DRAIN_SECONDS_MAX);
            do {
                pause(LAST_CALL_MS);
            } while (inFlight.get() > 0 && System.nanoTime() < deadline);
            System.out.println("stopped");
            // The runtime would report 143 for SIGTERM; to the outside this was an orderly end.
            Runtime.getRuntime().halt(0);
        }

        private static void pause(long millis) {
            try {
                Thread.sleep(millis);
            } catch (InterruptedException interrupted) {
                Thread.currentThread().interrupt();
            }
        }
    }

    /** The newest reports, bounded: the store must not be the leak. */
    static final class Store {
        private final TreeMap<Long, String> reports = new TreeMap<>();
        private long lastId;

        synchronized long add(String title, String body, String key) {
            lastId += 1;
            String fields = Json.object("title", title, "body", body, "request_key", key);
            reports.put(lastId, "{\"id\":" + lastId + "," + fields.substring(1));
            if (reports.size() > REPORTS_MAX) reports.pollFirstEntry();
            return lastId;
        }

        synchronized String get(long id) {
            String report = reports.get(id);
            if (report == null) throw new Refused(404, "no report " + id);
            return report;
        }

        synchronized List<String> newest(long limit) {
            List<String> newest = new ArrayList<>();
            for (String report : reports.descendingMap().values()) {
                if (newest.size() >= limit) break;
                newest.add(report);
            }
            return newest;
        }

        synchronized int size() {
            return reports.size();
        }

        /** Never gives the lock back that every request needs. */
        synchronized void hang() throws InterruptedException {
            new CountDownLatch(1).await();
        }
    }

    /** The switches: every way a service goes wrong that Plimsoll guards against, on request. */
    static final class Faults {
        static final List<String> SWITCHES =
            List.of("/leak", "/leak-buffers", "/leak-fds", "/spike", "/hang", "/crash");
        private static final int TICK_MS = 20;
        // A tick that comes late (a collection, a busy machine) is made up for, but not in one lump:
        // a leak that pauses and then jumps would be a spike.
        private static final long CATCH_UP_NANOS = TimeUnit.MILLISECONDS.toNanos(200);
        private static final int RECORD_BYTES = 1024;
        // Small enough to be no "humongous" object of the collector, which would take whole regions each.
        private static final int CHUNK_BYTES = 256 * 1024;

        private final Store store;
        private final ScheduledExecutorService timer = Executors.newScheduledThreadPool(1, Reports::daemon);
        // Whatever is put here is reachable for ever: that is what a leak is.
        private final List<Object> retained = Collections.synchronizedList(new ArrayList<>());

        Faults(Store store) {
            this.store = store;
        }

        void start(String path, Map<String, String> query) {
            if (path.equals("/leak-fds")) {
                long rate = Units.count(query.getOrDefault("rate", "200"));
                drip(rate, Units.count(query.getOrDefault("total", "100000")), this::openFiles);
            } else if (path.startsWith("/leak")) {
                long rate = Units.size(query.getOrDefault("rate", "30MiB"));
                long total = Units.size(query.getOrDefault("total", "400MiB"));
                drip(rate, total, path.equals("/leak") ? this::leakObjects : this::leakBuffers);
            } else if (path.equals("/spike")) {
                spike(query);
            } else if (path.equals("/hang")) {
                later(() -> daemon(this::hang).start(), TICK_MS);
            } else {
                String code = query.get("code");
                int status = code == null ? 134 : (int) Units.count(code);
                later(() -> Runtime.getRuntime().halt(status), TICK_MS);
            }
        }

        private void hang() {
            try {
                store.hang();
            } catch (InterruptedException interrupted) {
                Thread.currentThread().interrupt();
            }
        }

        /** Much memory at once, kept for `for`; outside the heap, whose own limit would stop it. */
        private void spike(Map<String, String> query) {
            long bytes = Units.size(query.getOrDefault("size", "600MiB"));
            long over = Math.max(Units.millis(query.getOrDefault("over", "2s")), TICK_MS);
            List<Object> held = Collections.synchronizedList(new ArrayList<>());
            drip(bytes * 1000 / over, bytes, amount -> held.add(filled(amount)));
            later(held::clear, over + Units.millis(query.getOrDefault("for", "10s")));
        }

        private void later(Runnable run, long delayMs) {
            timer.schedule(run, delayMs, TimeUnit.MILLISECONDS);
        }

        interface Take {
            void take(long amount) throws IOException;
        }

        /** Calls `take` so that on average `rate` per second are taken, until `total` or until it fails. */
        private void drip(long rate, long total, Take take) {
            long[] state = {0, System.nanoTime()};
            double[] due = {0};
            List<ScheduledFuture<?>> self = Collections.synchronizedList(new ArrayList<>());
            self.add(timer.scheduleWithFixedDelay(() -> {
                long now = System.nanoTime();
                due[0] += rate * (double) Math.min(now - state[1], CATCH_UP_NANOS) / 1e9;
                state[1] = now;
                long amount = (long) Math.min(due[0], total - state[0]);
                due[0] -= amount;
                state[0] += amount;
                try {
                    take.take(amount);
                } catch (IOException | OutOfMemoryError error) {
                    System.out.println("fault: stopped early: " + error.getMessage());
                    state[0] = total;
                }
                if (state[0] >= total) self.forEach(task -> task.cancel(false));
            }, TICK_MS, TICK_MS, TimeUnit.MILLISECONDS));
        }

        /** Objects on the heap: what -Xmx limits. */
        private void leakObjects(long bytes) {
            for (long taken = 0; taken < bytes; taken += RECORD_BYTES) {
                long[] samples = new long[RECORD_BYTES / 8 - 8];
                Arrays.fill(samples, retained.size());
                retained.add(samples);
            }
        }

        /** Direct buffers, outside the heap. */
        private void leakBuffers(long bytes) {
            retained.add(filled(bytes));
        }

        private void openFiles(long amount) throws IOException {
            for (long opened = 0; opened < amount; opened += 1) {
                retained.add(new FileInputStream("/proc/self/exe"));
            }
        }

        /** Written to, because memory that was never written is not resident. */
        private static List<ByteBuffer> filled(long bytes) {
            List<ByteBuffer> buffers = new ArrayList<>();
            byte[] chunk = new byte[CHUNK_BYTES];
            Arrays.fill(chunk, (byte) 1);
            for (long left = bytes; left > 0; left -= CHUNK_BYTES) {
                int length = (int) Math.min(left, CHUNK_BYTES);
                buffers.add(ByteBuffer.allocateDirect(length).put(chunk, 0, length));
            }
            return buffers;
        }
    }

    /** Sizes and durations as Plimsoll writes them: "30MiB", "500ms". */
    static final class Units {
        private static final Pattern QUANTITY = Pattern.compile("(\\d{1,12}(?:\\.\\d{1,9})?)\\s*([A-Za-z]*)");
        private static final Map<String, Double> SIZES = Map.of(
            "", 1.0, "B", 1.0, "KB", 1e3, "MB", 1e6, "GB", 1e9, "KiB", 0x1p10, "MiB", 0x1p20, "GiB", 0x1p30);
        private static final Map<String, Double> DURATIONS = Map.of("ms", 1.0, "s", 1e3, "", 1e3, "m", 6e4);

        /** Bytes. */
        static long size(String text) {
            return quantity(text, SIZES, "size");
        }

        /** Milliseconds; a bare number is seconds. */
        static long millis(String text) {
            return quantity(text, DURATIONS, "duration");
        }

        static long count(String text) {
            if (!text.matches("\\d{1,15}")) throw new Refused(400, "\"" + text + "\" is not a whole number");
            return Long.parseLong(text);
        }

        private static long quantity(String text, Map<String, Double> units, String what) {
            Matcher match = QUANTITY.matcher(text);
            if (!match.matches() || !units.containsKey(match.group(2))) {
                throw new Refused(400, what + " \"" + text + "\" is not a number with one of " + units.keySet());
            }
            return (long) (Double.parseDouble(match.group(1)) * units.get(match.group(2)));
        }

        static Map<String, String> query(String raw) {
            Map<String, String> query = new HashMap<>();
            for (String pair : raw == null ? new String[0] : raw.split("&")) {
                int equals = pair.indexOf('=');
                if (equals > 0) query.put(pair.substring(0, equals), pair.substring(equals + 1));
            }
            return query;
        }
    }

    /** As much JSON as reports need: flat objects of texts. */
    static final class Json {
        private static final String TEXT = "\"((?:[^\"\\\\\\x00-\\x1f]|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4})*+)\"";
        private static final Pattern PAIR = Pattern.compile("\\s*" + TEXT + "\\s*:\\s*" + TEXT + "\\s*");
        private static final String ESCAPED = "\"\\/bfnrt";
        private static final String MEANT = "\"\\/\b\f\n\r\t";

        /** The pairs given, in their order; a missing value is null. */
        static String object(String... pairs) {
            StringBuilder json = new StringBuilder("{");
            for (int i = 0; i < pairs.length; i += 2) {
                json.append(i == 0 ? "" : ",").append(text(pairs[i])).append(':');
                json.append(pairs[i + 1] == null ? "null" : text(pairs[i + 1]));
            }
            return json.append('}').toString();
        }

        private static String text(String value) {
            StringBuilder json = new StringBuilder("\"");
            for (char c : value.toCharArray()) {
                if (c == '"' || c == '\\') json.append('\\').append(c);
                else if (c < ' ') json.append(String.format("\\u%04x", (int) c));
                else json.append(c);
            }
            return json.append('"').toString();
        }

        static Map<String, String> parse(String json) {
            String object = json.trim();
            if (!object.startsWith("{") || !object.endsWith("}") || object.length() < 2) {
                throw new Refused(400, "the body is no JSON object");
            }
            Map<String, String> pairs = new HashMap<>();
            Matcher pair = PAIR.matcher(object).region(1, object.length() - 1);
            while (pair.lookingAt()) {
                pairs.put(unescape(pair.group(1)), unescape(pair.group(2)));
                if (pair.end() == object.length() - 1) return pairs;
                if (object.charAt(pair.end()) != ',') break;
                pair.region(pair.end() + 1, object.length() - 1);
            }
            throw new Refused(422, "a report is a flat JSON object of texts");
        }

        private static String unescape(String text) {
            StringBuilder value = new StringBuilder();
            for (int i = 0; i < text.length(); i += 1) {
                char c = text.charAt(i);
                if (c != '\\') {
                    value.append(c);
                } else if (text.charAt(++i) == 'u') {
                    value.append((char) Integer.parseInt(text.substring(i + 1, i + 5), 16));
                    i += 4;
                } else {
                    value.append(MEANT.charAt(ESCAPED.indexOf(text.charAt(i))));
                }
            }
            return value.toString();
        }
    }
}
