-- Runs transformations: each route's come as a JSON document, "program", in the filter's context.
-- Nothing of what users write is ever code here. Templates are compiled to closures once for each worker. JSON and base64 stand before it.

local DEEPEST_PROGRAM = 200
local MOST_STEPS = 5e6    -- of the expressions of one transformation: 0.1 to 0.3 s
local MOST_PROGRAMS = 2000
local NAMESPACE = "io.solo.transformation"

local TOO_LARGE = {}      -- an error: all others are texts

-- Regular expressions: all ways at once, byte by byte, the preferred first

local function expression(source)
  local program, last = {}, #source + 1
  for i, given in ipairs(source) do
    if type(given) == "string" then
      program[i] = { mark = given }
    elseif type(given) == "number" then
      program[i] = { members = { [given] = true } }
    elseif type(given[1]) == "table" then
      local members, runs = {}, given[1]
      for run = 1, #runs, 2 do
        for code = runs[run], runs[run + 1] do members[code] = true end
      end
      program[i] = { members = members }
    else
      program[i] = { way = given[1] + 1, other = given[2] and given[2] + 1 }
    end
  end
  return { program = program, last = last }
end

local function is_word(code)
  return code and (code >= 48 and code <= 57 or code >= 65 and code <= 90 or code == 95 or code >= 97 and code <= 122)
end

local function holds(mark, text, pos)
  if mark == "A" then return pos == 1 end
  if mark == "z" then return pos == #text + 1 end
  if mark == "^" then return pos == 1 or byte(text, pos - 1) == 10 end
  if mark == "$" then return pos == #text + 1 or byte(text, pos) == 10 end
  local boundary = not is_word(byte(text, pos - 1)) ~= not is_word(byte(text, pos))
  return boundary == (mark == "b")
end

-- Where the match begins and ends (behind it), and the wanted group; *whole* takes all of the text from *from*.
local function match(pattern, text, from, whole, budget)
  local program, last, length = pattern.program, pattern.last, #text
  local now, later, seen, steps = { n = 0 }, { n = 0 }, {}, budget.steps
  local found, found_end, found_open, found_close

  local function add(list, pc, pos, start, open, close)
    while seen[pc] ~= pos do
      seen[pc], steps = pos, steps - 1
      local step = program[pc]
      if step and step.way then
        if step.other then
          add(list, step.way, pos, start, open, close)
          pc = step.other
        else
          pc = step.way
        end
      elseif step and step.mark then
        if step.mark == "(" then
          open = pos
        elseif step.mark == ")" then
          close = pos
        elseif not holds(step.mark, text, pos) then
          return
        end
        pc = pc + 1
      else
        local n = list.n
        list[n + 1], list[n + 2], list[n + 3], list[n + 4] = pc, start, open or false, close or false
        list.n = n + 4
        return
      end
    end
  end

  for pos = from, length + 1 do
    if not found and (pos == from or not whole) then add(now, 1, pos, pos) end
    if now.n == 0 then
      if found or whole then break end
    else
      if steps < 0 then error(TOO_LARGE, 0) end
      local code = byte(text, pos)
      for i = 1, now.n, 4 do
        local pc = now[i]
        if pc == last then
          if not whole or pos > length then
            found, found_end, found_open, found_close = now[i + 1], pos, now[i + 2], now[i + 3]
            break
          end
        elseif code and program[pc].members[code] then
          add(later, pc + 1, pos + 1, now[i + 1], now[i + 2], now[i + 3])
        end
      end
      now, later = later, now
      later.n = 0
    end
  end
  budget.steps = steps
  return found, found_end, found_open, found_close
end

local function extract(extractor, text, budget)
  local pattern = extractor.pattern
  if extractor.mode == "all" then
    local parts, at = {}, 1
    while at <= #text + 1 do
      local from, behind = match(pattern, text, at, false, budget)
      if not from then break end
      parts[#parts + 1] = sub(text, at, from - 1)
      parts[#parts + 1] = extractor.text
      if behind == from then
        parts[#parts + 1] = sub(text, from, from)
        behind = from + 1
      end
      at = behind
    end
    parts[#parts + 1] = sub(text, at)
    return concat(parts)
  end
  local from, behind, open, close = match(pattern, text, 1, true, budget)
  if from and extractor.group then from, behind = open, close end
  if extractor.mode == "one" then
    if not from or not behind then return text end
    return sub(text, 1, from - 1) .. extractor.text .. sub(text, behind)
  end
  return from and behind and sub(text, from, behind - 1) or ""
end

-- Values of templates

local function step_into(value, key)
  if is_array(value) then return value[(tonumber(key) or -1) + 1] end
  if is_object(value) then return value[key] end
end

local function look_up(scope, path)
  local value = scope.names[path[1]]
  if value == nil then value = step_into(scope.values, path[1]) end
  for i = 2, #path do value = step_into(value, path[i]) end
  return value
end

local function truthy(value)
  if type(value) == "boolean" then return value end
  if is_exact(value) then return value.value ~= 0 end
  if type(value) == "table" then return next(value) ~= nil end
  return value ~= 0 and value ~= ""
end

local function text_of(value)
  if type(value) == "string" then return value end
  if value == NULL then return "" end
  return encode(value)
end

local function number_of(value)
  local n = is_exact(value) and value.value or type(value) == "number" and value
  return n or error("not a number", 0)
end

local function string_of(value)
  return type(value) == "string" and value or error("not a text", 0)
end

local function list_of(value)
  return is_array(value) and value or error("not a list", 0)
end

local function equal(left, right)
  if type(left) == "table" or type(right) == "table" then
    if (is_exact(left) or type(left) == "number") and (is_exact(right) or type(right) == "number") then
      return number_of(left) == number_of(right)
    end
    return encode(left) == encode(right)
  end
  return left == right
end

local function less(left, right)
  if type(left) == "string" and type(right) == "string" then return left < right end
  return number_of(left) < number_of(right)
end

local function contains(list, value)
  for _, each in ipairs(list_of(list)) do
    if equal(each, value) then return true end
  end
  return false
end

local OPERATORS = {
  ["+"] = function(a, b)
    if type(a) == "string" and type(b) == "string" then return a .. b end
    return number_of(a) + number_of(b)
  end,
  ["-"] = function(a, b) return number_of(a) - number_of(b) end,
  ["*"] = function(a, b) return number_of(a) * number_of(b) end,
  ["/"] = function(a, b)
    if number_of(b) == 0 then error("divided by 0", 0) end
    return number_of(a) / number_of(b)
  end,
  ["%"] = function(a, b)
    if number_of(b) == 0 then error("divided by 0", 0) end
    return math.fmod(number_of(a), number_of(b))
  end,
  ["^"] = function(a, b) return number_of(a) ^ number_of(b) end,
  ["=="] = equal,
  ["!="] = function(a, b) return not equal(a, b) end,
  ["<"] = less,
  [">"] = function(a, b) return less(b, a) end,
  ["<="] = function(a, b) return not less(b, a) end,
  [">="] = function(a, b) return not less(a, b) end,
  ["in"] = function(a, b) return contains(b, a) end,
}

local function is_number(value) return type(value) == "number" or is_exact(value) end

local FUNCTIONS = {
  at = function(_, value, key)
    local found
    if is_array(value) then found = value[number_of(key) + 1] else found = step_into(value, key) end
    if found == nil then error("no such member", 0) end
    return found
  end,
  base64_decode = function(_, value) return from_base64(string_of(value)) end,
  base64_encode = function(_, value) return to_base64(text_of(value)) end,
  base64url_decode = function(_, value)
    local text = gsub(gsub(gsub(string_of(value), "=+$", ""), "-", "+"), "_", "/")
    return from_base64(text .. string.rep("=", -#text % 4))
  end,
  base64url_encode = function(_, value)
    return (gsub(gsub(gsub(to_base64(text_of(value)), "+", "-"), "/", "_"), "=", ""))
  end,
  body = function(scope) return scope.body end,
  context = function(scope) return scope.values end,
  dynamic_metadata = function(scope, key, namespace)
    local there = scope.handle:streamInfo():dynamicMetadata():get(namespace or NAMESPACE)
    local value = there and there[key]
    if value == nil then return "" end
    return type(value) == "table" and error("not a text", 0) or value
  end,
  existsIn = function(_, value, key) return is_object(value) and value[key] ~= nil end,
  extraction = function(scope, name) return scope.extracted[name] end,
  first = function(_, list) return list_of(list)[1] end,
  float = function(_, value) return is_number(value) and number_of(value) or tonumber(value) end,
  header = function(scope, name) return scope.headers:get(string_of(name)) or "" end,
  int = function(_, value)
    local n = is_number(value) and number_of(value) or tonumber(value)
    return n and (n < 0 and math.ceil(n) or floor(n))
  end,
  isArray = function(_, value) return is_array(value) end,
  isBoolean = function(_, value) return type(value) == "boolean" end,
  isNumber = function(_, value) return is_number(value) end,
  isObject = function(_, value) return is_object(value) end,
  isString = function(_, value) return type(value) == "string" end,
  join = function(_, list, between)
    local parts = {}
    for i, each in ipairs(list_of(list)) do parts[i] = text_of(each) end
    return concat(parts, string_of(between))
  end,
  last = function(_, list) return list_of(list)[#list] end,
  length = function(_, value)
    if type(value) == "string" or is_array(value) then return #value end
    return is_object(value) and #sorted_keys(value) or error("no length", 0)
  end,
  lower = function(_, value) return string.lower(string_of(value)) end,
  range = function(_, count)
    local found = array({})
    if number_of(count) > 10000 then error("too long", 0) end
    for i = 1, number_of(count) do found[i] = i - 1 end
    return found
  end,
  raw_string = function(scope, value)
    return scope.escape and string_of(value) or escaped(string_of(value))
  end,
  request_header = function(scope, name) return scope.kept[name] or "" end,
  round = function(_, value, digits)
    local scale = 10 ^ number_of(digits)
    return floor(number_of(value) * scale + 0.5) / scale
  end,
  substring = function(_, value, from, length)
    local text, start = string_of(value), number_of(from)
    if start < 0 or start > #text then return "" end
    local wanted = length and number_of(length) or 0
    return sub(text, start + 1, wanted > 0 and start + wanted or -1)
  end,
  upper = function(_, value) return string.upper(string_of(value)) end,
}

-- Templates to closures over a scope

local compile

local function compile_all(given)
  local found = {}
  for i, each in ipairs(given) do found[i] = compile(each) end
  return found
end

local COMPILERS = {
  value = function(node)
    local value = node[2]
    return function() return value end
  end,
  name = function(node)
    local path = node[2]
    return function(scope)
      local value = look_up(scope, path)
      if value == nil then error("there is no " .. concat(path, "."), 0) end
      return value
    end
  end,
  exists = function(node)
    local path = node[2]
    return function(scope) return look_up(scope, path) ~= nil end
  end,
  ["not"] = function(node)
    local inner = compile(node[2])
    return function(scope) return not truthy(inner(scope)) end
  end,
  list = function(node)
    local members = compile_all(node[2])
    return function(scope)
      local found = array({})
      for i, each in ipairs(members) do found[i] = each(scope) end
      return found
    end
  end,
  object = function(node)
    local members = {}
    for i, member in ipairs(node[2]) do members[i] = { key = member[1], value = compile(member[2]) } end
    return function(scope)
      local found = {}
      for _, member in ipairs(members) do found[member.key] = member.value(scope) end
      return found
    end
  end,
  op = function(node)
    local left, right = compile(node[3]), compile(node[4])
    if node[2] == "and" then return function(scope) return truthy(left(scope)) and truthy(right(scope)) end end
    if node[2] == "or" then return function(scope) return truthy(left(scope)) or truthy(right(scope)) end end
    local operator = OPERATORS[node[2]]
    return function(scope) return operator(left(scope), right(scope)) end
  end,
  call = function(node)
    local name, given = node[2], node[3]
    if name == "default" then
      local value, otherwise = compile(given[1]), compile(given[2])
      local path = given[1][1] == "name" and given[1][2]
      return function(scope)
        if path and look_up(scope, path) == nil then return otherwise(scope) end
        return value(scope)
      end
    end
    local arguments, call = compile_all(given), FUNCTIONS[name]
    local one, two, three = arguments[1], arguments[2], arguments[3]
    return function(scope)
      local value = call(scope, one and one(scope), two and two(scope), three and three(scope))
      if value == nil then error(name .. " has no value", 0) end
      return value
    end
  end,
}

function compile(node) return COMPILERS[node[1]](node) end

local render_all

local function each_of(values)
  if is_array(values) then return ipairs(values) end
  if not is_object(values) then error("neither a list nor an object", 0) end
  local keys, i = sorted_keys(values), 0
  return function()
    i = i + 1
    return keys[i], values[keys[i]]
  end
end

local STATEMENTS = {
  ["="] = function(node)
    local value = compile(node[2])
    return function(scope, out)
      local text = text_of(value(scope))
      out[#out + 1] = scope.escape and escaped(text) or text
    end
  end,
  ["if"] = function(node)
    local branches, otherwise = {}, render_all(node[3])
    for i, branch in ipairs(node[2]) do
      branches[i] = { condition = compile(branch[1]), render = render_all(branch[2]) }
    end
    return function(scope, out)
      for _, branch in ipairs(branches) do
        if truthy(branch.condition(scope)) then return branch.render(scope, out) end
      end
      return otherwise(scope, out)
    end
  end,
  ["for"] = function(node)
    local names, values, render = node[2], compile(node[3]), render_all(node[4])
    return function(scope, out)
      local list, outer, index = values(scope), scope.names, 0
      local count = is_array(list) and #list or is_object(list) and #sorted_keys(list)
      for key, value in each_of(list) do
        local loop = { index = index, index1 = index + 1, is_first = index == 0, is_last = index + 1 == count,
          parent = outer.loop }
        local own = { loop = loop }
        if #names == 2 then own[names[1]], own[names[2]] = key, value else own[names[1]] = value end
        scope.names = setmetatable(own, { __index = outer })
        render(scope, out)
        index = index + 1
      end
      scope.names = outer
    end
  end,
  set = function(node)
    local name, value = node[2], compile(node[3])
    return function(scope) scope.own[name] = value(scope) end
  end,
}

function render_all(nodes)
  local steps = {}
  for i, node in ipairs(nodes) do
    if type(node) == "string" then
      steps[i] = function(_, out) out[#out + 1] = node end
    else
      steps[i] = STATEMENTS[node[1]](node)
    end
  end
  return function(scope, out)
    for i = 1, #steps do steps[i](scope, out) end
  end
end

-- The text a template comes to
local function template(nodes)
  if not nodes then return nil end
  if #nodes == 0 then return function() return "" end end
  if #nodes == 1 and type(nodes[1]) == "string" then
    return function() return nodes[1] end
  end
  local render = render_all(nodes)
  return function(scope)
    local out = {}
    scope.own = {}
    scope.names = scope.own
    render(scope, out)
    return concat(out)
  end
end

-- Transformations

local function put(object, path, value)
  for i = 1, #path - 1 do
    local inner = object[path[i]]
    if not is_object(inner) then
      inner = {}
      object[path[i]] = inner
    end
    object = inner
  end
  object[path[#path]] = value
end

-- Lists that are empty are not in a program
local function fill(given, ...)
  for _, name in ipairs({ ... }) do given[name] = given[name] or {} end
end

local function prepared(given)
  if not given then return nil end
  fill(given, "extractors", "set", "append", "remove", "metadata", "keys")
  for _, extractor in ipairs(given.extractors) do extractor.pattern = expression(extractor.regex) end
  for _, name in ipairs({ "set", "append", "keys", "metadata" }) do
    for _, each in ipairs(given[name]) do each.template = template(each.template) end
  end
  given.body = template(given.body)
  return given
end

-- What would end a header, or a request's first line, early
local function check_header(name, value)
  if find(value, "[%z\1-\8\10-\31\127]") then error("a control character in " .. name, 0) end
  if sub(name, 1, 1) == ":" and (value == "" or find(value, "[ \t]")) then error("a bad " .. name, 0) end
  if name == ":status" and not find(value, "^[2-5]%d%d$") then error("a bad :status", 0) end
end

local function plain(value)
  if value == NULL then return nil end
  if is_exact(value) then return value.value end
  if type(value) ~= "table" then return value end
  local found = {}
  for key, each in pairs(value) do found[key] = plain(each) end
  return found
end

local function values_of(given, text)
  if not given.parse or text == "" then return {} end
  local good, value = pcall(decode, text)
  if good then return value end
  return given.ignore and {} or error(value, 0)
end

local function headers_and_body(given, handle, text)
  local headers, found = {}, {}
  for name, value in pairs(handle:headers()) do headers[name] = value end
  found.headers = headers
  if text ~= "" then found.body = text end
  if given.about_request then
    local path, query = (headers[":path"] or ""):match("^([^?]*)%??(.*)$")
    found.httpMethod, found.path, found.queryString = headers[":method"], path, query
  end
  return encode(found)
end

-- All that a transformation comes to, before anything is changed, so that a mistake changes nothing
local function worked_out(given, handle, text, kept, bodiless)
  local scope = { handle = handle, headers = handle:headers(), body = text, kept = kept,
    extracted = {}, escape = given.escape }
  local found = { set = {}, append = {}, metadata = {} }
  if given.all then
    found.body = not bodiless and headers_and_body(given, handle, text)
    return found
  end
  scope.values = values_of(given, text)
  local budget = { steps = MOST_STEPS }
  for _, extractor in ipairs(given.extractors) do
    local source = extractor.header and (scope.headers:get(extractor.header) or "") or text
    scope.extracted[extractor.name] = extract(extractor, source, budget)
  end
  local target = is_object(scope.values) and scope.values
  if given.merge and not target then error("the body is no object", 0) end
  if target and (not given.advanced or given.merge == "extractors") then
    for _, extractor in ipairs(given.extractors) do put(target, extractor.path, scope.extracted[extractor.name]) end
  end
  for kind, list in pairs({ set = given.set, append = given.append }) do
    for i, each in ipairs(list) do
      local value = each.template(scope)
      check_header(each.name, value)
      found[kind][i] = value
    end
  end
  for i, each in ipairs(given.metadata) do
    local value = each.template(scope)
    if each.json then value = plain(decode(value)) end
    found.metadata[i] = value
  end
  if bodiless then return found end
  if given.body then found.body = given.body(scope) end
  for _, each in ipairs(given.keys) do
    local value = each.template(scope)
    if value ~= "" or each.override then put(target, each.path, value) end
  end
  if given.merge then found.body = encode(target) end
  return found
end

local function change(given, handle, buffer, found)
  local headers = handle:headers()
  for _, name in ipairs(given.remove) do headers:remove(name) end
  for i, each in ipairs(given.set) do
    if found.set[i] == "" then headers:remove(each.name) else headers:replace(each.name, found.set[i]) end
  end
  for i, each in ipairs(given.append) do
    if found.append[i] ~= "" then headers:add(each.name, found.append[i]) end
  end
  for i, each in ipairs(given.metadata) do
    if found.metadata[i] ~= nil then
      handle:streamInfo():dynamicMetadata():set(each.namespace or NAMESPACE, each.key, found.metadata[i])
    end
  end
  if found.body then buffer:setBytes(found.body) end
end

-- Gives the status of a failure, or nothing
local function transform(given, handle, kept, bodiless)
  local buffer, text = nil, ""
  if given.buffer and not bodiless then
    buffer = handle:body(true)
    if buffer:length() > 0 then text = buffer:getBytes(0, buffer:length()) end
  end
  local good, found = pcall(worked_out, given, handle, text, kept, bodiless)
  if good then
    change(given, handle, buffer, found)
    return nil
  end
  if found == TOO_LARGE then return "413" end
  handle:logDebug("transformation: " .. tostring(found))
  return "400"
end

-- Choosing

local function whole(pattern, text)
  return match(pattern, text, 1, true, { steps = MOST_STEPS }) ~= nil
end

local function fits(wanted, value)
  if value == nil then return false end
  if wanted.regex then return whole(wanted.regex, value) end
  return wanted.value == "" or wanted.value == value
end

local function all_fit(list, value_of)
  for _, wanted in ipairs(list) do
    if fits(wanted, value_of(wanted.name)) == (wanted.invert or false) then return false end
  end
  return true
end

local function queries(text)
  local found = {}
  for name, value in text:gmatch("([^&=]+)=?([^&]*)") do
    if found[name] == nil then found[name] = value end
  end
  return found
end

local function request_fits(matcher, headers)
  if not matcher then return true end
  local path, query = (headers:get(":path") or ""):match("^([^?#]*)%??(.*)$")
  if matcher.lower then path = string.lower(path) end
  if matcher.prefix and sub(path, 1, #matcher.prefix) ~= matcher.prefix then return false end
  if matcher.exact and path ~= matcher.exact then return false end
  if matcher.regex and not whole(matcher.regex, path) then return false end
  if matcher.methods and not contains(matcher.methods, headers:get(":method")) then return false end
  if not all_fit(matcher.headers, function(name) return headers:get(name) end) then return false end
  if #matcher.query == 0 then return true end
  local given = queries(query)
  return all_fit(matcher.query, function(name) return given[name] end)
end

-- Programs

local programs, older, count = {}, {}, 0

local function prepare_headers(wanted)
  for _, each in ipairs(wanted) do each.regex = each.regex and expression(each.regex) end
end

local function prepare(text)
  local program = decode(text, DEEPEST_PROGRAM)
  fill(program, "requests", "responses", "keep")
  for _, choice in ipairs(program.requests) do
    choice.request, choice.response = prepared(choice.request), prepared(choice.response)
    local matcher = choice.matcher
    if matcher then
      matcher.regex = matcher.regex and expression(matcher.regex)
      fill(matcher, "headers", "query")
      prepare_headers(matcher.headers)
      prepare_headers(matcher.query)
    end
  end
  for _, choice in ipairs(program.responses) do
    choice.response = prepared(choice.response)
    fill(choice, "headers")
    prepare_headers(choice.headers)
  end
  return program
end

local function program_of(text)
  local program = programs[text] or older[text]
  if not program then
    if count >= MOST_PROGRAMS then programs, older, count = {}, programs, 0 end
    program = prepare(text)
    programs[text], count = program, count + 1
  end
  return program
end

-- An upgraded connection has no body that ends; what is sent to HEAD, and with these statuses, has none.
local function is_tunnel(headers)
  return headers:get(":method") == "CONNECT"
    or find(string.lower(headers:get("connection") or ""), "upgrade", 1, true) and headers:get("upgrade") ~= nil
end

local function choose(program, headers)
  for i, choice in ipairs(program.requests) do
    if request_fits(choice.matcher, headers) then return i end
  end
  return 0
end

local BODILESS = { ["101"] = true, ["204"] = true, ["304"] = true }

function envoy_on_request(handle)
  local text = handle:filterContext():get("program")
  if not text then return end
  local program, headers = program_of(text), handle:headers()
  local good, index = pcall(choose, program, headers)
  local chosen, tunnel = good and program.requests[index] or {}, is_tunnel(headers)
  local kept = { choice = index, program = chosen.clear and text, headers = {} }
  kept.bodiless = tunnel or headers:get(":method") == "HEAD"
  for _, name in ipairs(program.keep) do kept.headers[name] = headers:get(name) end
  local failure = not good and "413" or chosen.request and transform(chosen.request, handle, nil, tunnel)
  if chosen.response or failure or #program.responses > 0 then
    kept.failed = failure and true or false
    handle:streamInfo():dynamicMetadata():set(FILTER, "kept", kept)
  end
  if failure then
    handle:respond({ [":status"] = failure }, failure == "413" and "payload too large" or "bad request")
  elseif chosen.clear then
    handle:clearRouteCache()
  end
end

-- The transformation that was chosen with the request, else the first that the answer fits
local function response_transformation(handle, kept)
  local text = kept.program or handle:filterContext():get("program")
  if not text then return nil end
  local program = program_of(text)
  if kept.failed then return nil, program.hide end
  local chosen = program.requests[kept.choice]
  if chosen and chosen.response then return chosen.response, program.hide end
  for _, choice in ipairs(program.responses) do
    if all_fit(choice.headers, function(name) return handle:headers():get(name) end) then
      return choice.response, program.hide
    end
  end
  return nil, program.hide
end

function envoy_on_response(handle)
  local there = handle:streamInfo():dynamicMetadata():get(FILTER)
  local kept = there and there.kept or { headers = {} }
  local good, given, hide = pcall(response_transformation, handle, kept)
  if good and hide then handle:headers():remove(hide) end
  if good and not given then return end
  local status = handle:headers():get(":status")
  local bodiless = kept.bodiless or BODILESS[status]
  local failure = not good or transform(given, handle, kept.headers, bodiless)
  if failure and not bodiless then
    if tonumber(status) < 400 then handle:headers():replace(":status", "500") end
    handle:headers():replace("content-type", "text/plain")
    handle:body(true):setBytes("the answer could not be transformed")
  end
end
