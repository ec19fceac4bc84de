import io.trino.server.Server;

/** Trino as its own distribution starts it: the argument is the version that it tells. */
public final class TrinoServer {
  public static void main(String[] arguments) {
    new Server().start(arguments[0]);
  }
}
