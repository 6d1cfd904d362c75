package autobus

import (
	"net"
	"strconv"
	"strings"
	"time"
)

const (
	redisPort    = "6379"  // https://redis.io/docs/latest/operate/oss_and_stack/management/config/
	sentinelPort = "26379" // https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/

	// defaultSocketTimeout is how long a server may take to answer or to read
	// on. Python's redis package has none by default, and hangs.
	defaultSocketTimeout = 5 * time.Second

	// defaultHealthCheck is how long a connection may be silent until a PING
	// asks whether it is still there.
	defaultHealthCheck = 10 * time.Second

	maxRedisSeconds = 86400 // of an option; more is a mistake
)

// A redisURL is what a URL of the Redis transport says.
type redisURL struct {
	network  string   // tcp or unix
	addrs    []string // of servers or sentinels, in the order to try them
	sentinel bool
	master   string // its name at the sentinels

	username, password                 string
	sentinelUsername, sentinelPassword string
	clientName                         string
	protocol                           int // of RESP: 2 or 3
	sharded                            bool

	socketTimeout, connectTimeout time.Duration
	healthCheck                   time.Duration // 0: none

	tls                                    bool
	noVerify                               bool // ssl_cert_reqs=none
	noHostname                             bool // ssl_check_hostname=false
	caCerts, certFile, keyFile, serverName string
}

// redisOptions are the names of the options, sorted. They are those of
// Python's redis package but for sharded, sentinel_… and ssl_server_name.
var redisOptions = []string{
	"client_name", "db", "health_check_interval", "password", "protocol", "sentinel_password", "sentinel_username", "sharded",
	"socket_connect_timeout", "socket_timeout", "ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname",
	"ssl_keyfile", "ssl_server_name", "username",
}

// parseRedisURL takes what Python's redis package takes (its parse_url), but
// refuses what that ignores. It links no net/url.
func parseRedisURL(rawURL string) (u redisURL, err error) {
	u = redisURL{network: "tcp", protocol: 2, socketTimeout: defaultSocketTimeout, healthCheck: defaultHealthCheck}
	scheme, rest, ok := strings.Cut(rawURL, "://")
	if !ok {
		return u, badRedisURL("it has no scheme, such as redis://")
	}
	switch lower(scheme) {
	case "redis", "valkey":
	case "rediss", "valkeys":
		u.tls = true
	case "unix":
		u.network = "unix"
	case "redis+sentinel":
		u.sentinel = true
	case "rediss+sentinel":
		u.sentinel, u.tls = true, true
	default:
		return u, badRedisURL("the scheme " + quoted(scheme) + " isn't one of redis, rediss, valkey, valkeys, unix, redis+sentinel and rediss+sentinel")
	}
	rest, _, hasFragment := strings.Cut(rest, "#")
	rest, query, _ := strings.Cut(rest, "?")
	hosts, path, hasPath := strings.Cut(rest, "/")
	if hasPath {
		path = "/" + path
	}
	// As Python's urlsplit does it: a raw '@' or ':' in a password is fine.
	userinfo := ""
	if i := strings.LastIndexByte(hosts, '@'); i >= 0 {
		userinfo, hosts = hosts[:i], hosts[i+1:]
	}
	problem := u.parseHosts(hosts)
	if problem == "" {
		problem = u.parsePath(path)
	}
	if problem == "" && hasFragment {
		problem = "nothing may follow a '#': write %23 for one in a password"
	}
	if problem == "" {
		problem = u.parseOptions(query)
	}
	if problem != "" && (strings.Contains(path, "@") || strings.Contains(query, "@") || hasFragment) {
		// What was taken for a host, a path or an option may be a password.
		problem = "a '/', '?' or '#' in a user name or a password must be written %2F, %3F or %23"
	}
	if problem != "" {
		return u, badRedisURL(problem)
	}
	// In Python's redis package too these go before the options.
	username, password, _ := strings.Cut(userinfo, ":")
	if username != "" {
		u.username = unescapeLoosely(username)
	}
	if password != "" {
		u.password = unescapeLoosely(password)
	}
	return u, nil
}

// badRedisURL doesn't repeat the URL: there may be a password in it.
func badRedisURL(problem string) error { return fail("bad Redis URL: "+problem, nil) }

func (u *redisURL) parseHosts(hosts string) (problem string) {
	if u.network == "unix" {
		if hosts != "" {
			return "a socket's path must be absolute, with three slashes: unix:///run/redis.sock"
		}
		return ""
	}
	defaultPort := redisPort
	if u.sentinel {
		defaultPort = sentinelPort
	}
	for rest, more := hosts, true; more; {
		var text string
		text, rest, more = strings.Cut(rest, ",")
		host, port, bracketed, problem := splitHost(text)
		if problem != "" {
			return problem
		}
		if bracketed && (host == "" || port != "" && port[0] != ':') || !bracketed && strings.LastIndexByte(port, ':') > 0 {
			return "an IPv6 host stands in brackets, as in [::1] or [::1]:6379"
		}
		port = strings.TrimPrefix(port, ":")
		host = unescapeLoosely(host)
		if strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return "a host has white space or a control character in it"
		}
		if host == "" {
			if strings.Contains(hosts, ",") {
				return "a host is missing beside a comma"
			}
			host = "localhost"
		}
		if port == "" {
			port = defaultPort
		} else if _, ok := parsePort(port); !ok {
			return "a port must be a number from 1 to 65535"
		}
		u.addrs = append(u.addrs, net.JoinHostPort(host, port))
	}
	return ""
}

func (u *redisURL) parsePath(path string) (problem string) {
	if u.network == "unix" {
		if len(path) < 2 {
			return "it lacks the socket's path, as in unix:///run/redis.sock"
		}
		u.addrs = []string{unescapeLoosely(path)}
		return ""
	}
	path = strings.TrimPrefix(path, "/")
	if u.sentinel {
		path, db, _ := strings.Cut(path, "/")
		if u.master = unescapeLoosely(path); u.master == "" {
			return "it lacks the name of the master, as in redis+sentinel://host:26379/mymaster"
		}
		return checkDB(db)
	}
	return checkDB(strings.TrimSuffix(path, "/"))
}

// checkDB takes a database's number, which means nothing: "Pub/Sub has no
// relation to the key space" (https://redis.io/docs/latest/develop/pubsub/).
func checkDB(db string) (problem string) {
	if db == "" {
		return ""
	}
	if n, err := strconv.Atoi(unescapeLoosely(db)); err != nil || n < 0 {
		return "the path must be a database's number, as in redis://host/0"
	}
	return ""
}

func (u *redisURL) parseOptions(query string) (problem string) {
	given, problem := parseQuery(query, redisOptions, u.setOption)
	if problem != "" {
		return problem
	}
	if !contains(given, "socket_connect_timeout") {
		u.connectTimeout = u.socketTimeout // so has Python's redis package
	}
	for _, name := range given {
		switch {
		case strings.HasPrefix(name, "ssl_") && !u.tls:
			return name + "= is for TLS: the URL must begin with rediss://"
		case strings.HasPrefix(name, "sentinel_") && !u.sentinel:
			return name + "= is for redis+sentinel://"
		}
	}
	switch {
	case u.keyFile != "" && u.certFile == "":
		return "ssl_keyfile= needs ssl_certfile="
	case u.sharded && u.sentinel:
		return "sharded= is for a Redis Cluster, which has no sentinels"
	case u.sharded && u.network == "unix":
		return "sharded= is for a Redis Cluster, which is on no Unix socket"
	}
	return ""
}

func (u *redisURL) setOption(name, value string) (problem string) {
	switch name {
	case "db":
		if n, err := strconv.Atoi(value); err != nil || n < 0 {
			return wrongOption(name, "a number", value)
		}
	case "health_check_interval":
		return setSeconds(&u.healthCheck, name, value, true)
	case "protocol":
		if value != "2" && value != "3" {
			return wrongOption(name, "2 or 3", value)
		}
		u.protocol = int(value[0] - '0')
	case "sharded":
		return setBool(&u.sharded, name, value)
	case "socket_connect_timeout":
		return setSeconds(&u.connectTimeout, name, value, false)
	case "socket_timeout":
		return setSeconds(&u.socketTimeout, name, value, false)
	case "ssl_cert_reqs":
		switch value {
		case "none":
			u.noVerify = true
		case "optional", "required": // Python's ssl makes no difference for a client
			u.noVerify = false
		default:
			return wrongOption(name, "required, optional or none", value)
		}
	case "ssl_check_hostname":
		var check bool
		problem = setBool(&check, name, value)
		u.noHostname = !check
	default:
		*u.text(name) = value
	}
	return problem
}

// text returns where the value of an option goes that may be any text.
func (u *redisURL) text(name string) *string {
	switch name {
	case "client_name":
		return &u.clientName
	case "password":
		return &u.password
	case "sentinel_password":
		return &u.sentinelPassword
	case "sentinel_username":
		return &u.sentinelUsername
	case "ssl_ca_certs":
		return &u.caCerts
	case "ssl_certfile":
		return &u.certFile
	case "ssl_keyfile":
		return &u.keyFile
	case "ssl_server_name":
		return &u.serverName
	}
	return &u.username
}

// setBool takes what to_bool of Python's redis package does, but refuses what
// is neither.
func setBool(to *bool, name, value string) (problem string) {
	switch lower(value) {
	case "1", "true", "t", "yes", "y", "on":
		*to = true
	case "0", "false", "f", "no", "n", "off":
		*to = false
	default:
		return wrongOption(name, "true or false", value)
	}
	return ""
}

func setSeconds(to *time.Duration, name, value string, zero bool) (problem string) {
	seconds, err := strconv.ParseFloat(value, 64)
	d := time.Duration(seconds * float64(time.Second))
	if err != nil || !(seconds >= 0 && seconds <= maxRedisSeconds) || d == 0 && !(zero && seconds == 0) {
		least := "over 0"
		if zero {
			least = "from 0"
		}
		return wrongOption(name, "a number of seconds "+least+" to "+strconv.Itoa(maxRedisSeconds), value)
	}
	*to = d
	return ""
}
